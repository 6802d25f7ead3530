"""ONNX's own test sets, and what fewbits is known to make of them.

`sets` finds the sets in the installed package, `judge` runs one and tells what came of it, and
`known` reads and writes the lists beside this file: `refused.txt`, what is refused in one clear
line, by operator, and `wrong.txt`, what is answered wrongly until it is mended.

    python -m conformance            # in tests/python, with FEWBITS_BIN: prints what differs
    python -m conformance --write    # keeps the lists of now; say in the commit what changes them
"""
