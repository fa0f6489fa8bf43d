"""Models: pretrained backbones with a head."""
