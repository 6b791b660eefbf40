"""ONNX's backend suite through our own importer, build and run.

    python tests/onnx_suite                     every case, two workers
    python tests/onnx_suite 'test_cast_*' lstm  cases by pattern (a word is a part of the name)
    python tests/onnx_suite --status wrong,crash,timeout,failed   those that are listed so
    python tests/onnx_suite --write             every case, and write cases.txt anew

``cases.txt`` lists each case that does not pass, with the reason. No case is answered by another
runtime, and data inputs stay inputs: what is given a value at import is what
``burnish.compiler.importers.onnx.settings.SETTINGS`` names (axes, shapes, pads and the like, which
are initializers in the files people have).
"""
