"""What runs the network. Imports nothing: the command line and the server's settings take the help from here."""

HELP = "What runs the network: onnx (exported graphs), torch, or auto: onnx on a CPU where the model has graphs."
