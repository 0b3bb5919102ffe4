"""The demo: real LLM tensors through the generated Verilog, compared bit for bit with the PyTorch models."""
