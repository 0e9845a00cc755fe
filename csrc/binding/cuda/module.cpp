// The Python module effkernels._C_cuda: importing it registers the operators of this folder with torch.

#include <Python.h>

namespace {

PyModuleDef kModule = {PyModuleDef_HEAD_INIT,
                       "_C_cuda",
                       "CUDA operators of effkernels, registered on import.",
                       0,
                       nullptr,
                       nullptr,
                       nullptr,
                       nullptr,
                       nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__C_cuda() { return PyModule_Create(&kModule); }
