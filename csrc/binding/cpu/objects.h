#pragma once

#include <Python.h>

namespace effkernels::binding {

// The Python type `Objects`: whether objects are as they were when an instance was made.
//
//   Objects(instances, dicts, names, entries, empty, types, attributes).same() -> bool
//
// instances   objects: their class, and all that their __dict__ holds
// dicts       dictionaries: all that they hold
// names       dictionaries: their keys
// entries     (dictionary, key): the value
// empty       containers that must be empty, whatever they were
// types       objects: their class
// attributes  (object, name): what getattr finds, best of classes
//
// All by identity, keys in their order. It keeps alive what it was made from. A new reference; null with a
// Python error.
PyObject* objects_type();

}  // namespace effkernels::binding
