"""Speed, memory and quality beside Trainer, PEFT and pipeline on the same work: `python -m benchmarks.finetune -h`."""
