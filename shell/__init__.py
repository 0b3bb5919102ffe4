"""What meets the operating system: the console, output files, child processes. Every layer may use it."""
