"""Models: pretrained backbones with a head, new encoders, translators, a net for images, and the parts they share."""
