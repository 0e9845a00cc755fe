#include "binding/cpu/objects.h"

#include <cstddef>
#include <cstdint>
#include <exception>
#include <utility>
#include <vector>

namespace effkernels::binding {
namespace {

// A network's weights drive these objects out of the caches, and then most of the time is spent waiting for
// memory: so each object is prefetched while the one this many before it is compared.
constexpr size_t kAhead = 16;

template <class Of>
void prefetch_ahead(const std::vector<Of>& list, size_t i, PyObject* Of::* member) {
  if (i + kAhead >= list.size()) return;
  // Only the first four words are read; the last of them may lie in the next cache line.
  const char* object = reinterpret_cast<const char*>(list[i + kAhead].*member);
  __builtin_prefetch(object);
  __builtin_prefetch(object + 3 * sizeof(void*));
}

struct Typed {
  PyObject* object;
  PyTypeObject* type;
};

struct Instance {
  PyObject *object, *dict;
  PyTypeObject* type;
};

// version: a number that changes whenever the dictionary does, so that its entries need not be read.
// all_changes: one that changes whenever any dictionary with a version does. 0: there is no such number.
#if defined(PYPY_VERSION)
uint64_t version(PyObject*) { return 0; }
uint64_t first_version(PyObject*) { return 0; }
uint64_t all_changes() { return 0; }
#elif PY_VERSION_HEX < 0x030C0000
uint64_t version(PyObject* dict) { return reinterpret_cast<PyDictObject*>(dict)->ma_version_tag; }
uint64_t first_version(PyObject* dict) { return version(dict); }
uint64_t all_changes() { return 0; }
#else
// From 3.12 on, dictionaries notify watchers of changes. One counter serves all: modules seldom change.
uint64_t changes = 1;
int count_change(PyDict_WatchEvent, PyObject*, PyObject*, PyObject*) {
  ++changes;
  return 0;
}
uint64_t version(PyObject*) { return changes; }
uint64_t all_changes() { return changes; }
uint64_t first_version(PyObject* dict) {
  static const int watcher = PyDict_AddWatcher(count_change);
  if (watcher >= 0 && PyDict_Watch(watcher, dict) == 0) return changes;
  PyErr_Clear();  // others have taken all watchers that there are
  return 0;
}
#endif

// Entries up to `end` are those of `dict`, from where those of the dictionary before end.
struct Dict {
  PyObject* dict;
  uint64_t version;
  size_t end;
};

// Without a value it may be any.
struct Entry {
  PyObject *key, *value;
};

struct Lookup {
  PyObject *owner, *name, *value;
};

// A Python error is set.
struct PythonError : std::exception {};

PyObject* or_throw(PyObject* object) {
  if (object == nullptr) throw PythonError();
  return object;
}

// A reference that ends with its block.
class Own {
 public:
  explicit Own(PyObject* object) : object_(or_throw(object)) {}
  ~Own() { Py_DECREF(object_); }
  Own(const Own&) = delete;
  Own& operator=(const Own&) = delete;
  PyObject* get() const { return object_; }

 private:
  PyObject* object_;
};

class Objects {
 public:
  Objects() = default;
  ~Objects() { release(); }
  Objects(const Objects&) = delete;
  Objects& operator=(const Objects&) = delete;

  void read(PyObject* const (&given)[7]) {
    each(given[0], [this](PyObject* object) {
      const Own dict(PyObject_GenericGetDict(object, nullptr));
      keep(reinterpret_cast<PyObject*>(Py_TYPE(object)));
      instances_.push_back({keep(object), dict.get(), Py_TYPE(object)});
      add(dict.get(), true);
    });
    each(given[1], [this](PyObject* dict) { add(dict, true); });
    each(given[2], [this](PyObject* dict) { add(dict, false); });
    each(given[3], [this](PyObject* pair) {
      const auto [dict, key] = keep_pair(pair);
      check(PyDict_Check(dict), "entries must be of dictionaries");
      PyObject* value = PyDict_GetItemWithError(dict, key);
      if (value == nullptr) {
        if (PyErr_Occurred() == nullptr) PyErr_SetObject(PyExc_KeyError, key);
        throw PythonError();
      }
      entries_looked_up_.push_back({dict, key, keep(value)});
    });
    each(given[4], [this](PyObject* container) {
      if (PyDict_Check(container)) {
        add_empty(container);
      } else {
        empty_.push_back(keep(container));
      }
    });
    each(given[5], [this](PyObject* object) {
      keep(reinterpret_cast<PyObject*>(Py_TYPE(object)));
      types_.push_back({keep(object), Py_TYPE(object)});
    });
    each(given[6], [this](PyObject* pair) {
      const auto [owner, name] = keep_pair(pair);
      const Own value(PyObject_GetAttr(owner, name));
      attributes_.push_back({owner, name, keep(value.get())});
    });
  }

  // Never with a Python error set.
  bool same() {
    const bool same = same_instances() && same_dicts() && same_lookups();
    if (PyErr_Occurred() == nullptr) return same;
    PyErr_Clear();
    return false;
  }

  int traverse(visitproc visit, void* arg) const {
    for (PyObject* object : kept_) Py_VISIT(object);
    return 0;
  }

  // Nothing is the same any more.
  void release() {
    released_ = true;
    const std::vector<PyObject*> kept = std::move(kept_);
    kept_.clear();
    instances_.clear();
    types_.clear();
    dicts_.clear();
    entries_looked_up_.clear();
    empty_.clear();
    attributes_.clear();
    for (PyObject* object : kept) Py_DECREF(object);
  }

 private:
  static void check(bool fine, const char* what) {
    if (fine) return;
    PyErr_SetString(PyExc_TypeError, what);
    throw PythonError();
  }

  template <class Use>
  static void each(PyObject* sequence, const Use& use) {
    const Own items(PySequence_Tuple(sequence));
    for (Py_ssize_t i = 0; i < PyTuple_Size(items.get()); ++i) use(PyTuple_GetItem(items.get(), i));
  }

  PyObject* keep(PyObject* object) {
    kept_.push_back(object);
    Py_INCREF(object);
    return object;
  }

  std::pair<PyObject*, PyObject*> keep_pair(PyObject* pair) {
    check(PyTuple_Check(pair) && PyTuple_Size(pair) == 2, "entries and attributes must be pairs");
    return {keep(PyTuple_GetItem(pair, 0)), keep(PyTuple_GetItem(pair, 1))};
  }

  void add(PyObject* dict, bool values) {
    check(PyDict_Check(dict), "dictionaries are expected");
    const uint64_t version = first_version(dict);
    PyObject *key, *value;
    for (Py_ssize_t position = 0; PyDict_Next(dict, &position, &key, &value);) {
      entries_.push_back({keep(key), values ? keep(value) : nullptr});
    }
    dicts_.push_back({keep(dict), version, entries_.size()});
  }

  // Without a version where it is not empty now: it is then read, and differs, at each comparison.
  void add_empty(PyObject* dict) {
    const uint64_t version = first_version(dict);
    dicts_.push_back({keep(dict), PyDict_Size(dict) == 0 ? version : 0, entries_.size()});
  }

  bool same_instances() const {
    for (size_t i = 0; i < instances_.size(); ++i) {
      prefetch_ahead(instances_, i, &Instance::object);
      prefetch_ahead(instances_, i, &Instance::dict);
      const Instance& one = instances_[i];
      if (Py_TYPE(one.object) != one.type) return false;
      PyObject* dict = PyObject_GenericGetDict(one.object, nullptr);
      Py_XDECREF(dict);  // `one` has it too, if it is the same
      if (dict != one.dict) return false;
    }
    for (size_t i = 0; i < types_.size(); ++i) {
      prefetch_ahead(types_, i, &Typed::object);
      if (Py_TYPE(types_[i].object) != types_[i].type) return false;
    }
    return true;
  }

  bool same_dicts() {
    if (released_) return false;
    const uint64_t changes = all_changes();
    if (changes != 0 && changes == checked_) return true;
    bool versioned = true;  // all dictionaries
    size_t next = 0;
    for (size_t i = 0; i < dicts_.size(); ++i) {
      prefetch_ahead(dicts_, i, &Dict::dict);
      Dict& one = dicts_[i];
      const uint64_t now = version(one.dict);
      if (now == 0 || now != one.version) {
        if (!same_entries(one, next)) return false;
        if (one.version != 0) one.version = now;
      }
      versioned &= one.version != 0;
      next = one.end;
    }
    checked_ = versioned ? changes : 0;
    return true;
  }

  // `first`: where the entries of this dictionary begin.
  bool same_entries(const Dict& one, size_t first) const {
    if (PyDict_Size(one.dict) != static_cast<Py_ssize_t>(one.end - first)) return false;
    PyObject *key, *value;
    for (Py_ssize_t position = 0; PyDict_Next(one.dict, &position, &key, &value); ++first) {
      const Entry& was = entries_[first];
      if (key != was.key || (was.value != nullptr && value != was.value)) return false;
    }
    return true;
  }

  bool same_lookups() const {
    for (const Lookup& one : entries_looked_up_) {
      if (PyDict_GetItemWithError(one.owner, one.name) != one.value) return false;
    }
    for (PyObject* container : empty_) {
      if (PyObject_IsTrue(container) != 0) return false;
    }
    for (const Lookup& one : attributes_) {
      PyObject* value = PyObject_GetAttr(one.owner, one.name);
      Py_XDECREF(value);
      if (value != one.value) return false;
    }
    return true;
  }

  bool released_ = false;
  uint64_t checked_ = 0;  // all_changes() when all dictionaries were last found the same; 0: not known
  std::vector<Instance> instances_;
  std::vector<Typed> types_;
  std::vector<Dict> dicts_;
  std::vector<Entry> entries_;
  std::vector<Lookup> entries_looked_up_, attributes_;
  std::vector<PyObject*> empty_;
  std::vector<PyObject*> kept_;
};

struct PyObjects {
  PyObject_HEAD Objects* objects;
};

Objects* objects_of(PyObject* self) { return reinterpret_cast<PyObjects*>(self)->objects; }

PyObject* make(PyTypeObject* type, PyObject* arguments, PyObject*) {
  PyObject* given[7];
  if (!PyArg_ParseTuple(arguments, "OOOOOOO:Objects", &given[0], &given[1], &given[2], &given[3], &given[4],
                        &given[5], &given[6])) {
    return nullptr;
  }
  PyObject* self = PyType_GenericAlloc(type, 0);
  if (self == nullptr) return nullptr;
  try {
    auto* objects = new Objects();
    reinterpret_cast<PyObjects*>(self)->objects = objects;
    objects->read(given);
    return self;
  } catch (const PythonError&) {
  } catch (const std::exception&) {
    PyErr_NoMemory();
  }
  Py_DECREF(self);
  return nullptr;
}

void destroy(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  delete objects_of(self);
  PyObject_GC_Del(self);
  Py_DECREF(reinterpret_cast<PyObject*>(type));
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(reinterpret_cast<PyObject*>(Py_TYPE(self)));
  return objects_of(self) == nullptr ? 0 : objects_of(self)->traverse(visit, arg);
}

int clear(PyObject* self) {
  if (objects_of(self) != nullptr) objects_of(self)->release();
  return 0;
}

PyObject* same(PyObject* self, PyObject*) { return PyBool_FromLong(objects_of(self)->same()); }

PyMethodDef kMethods[] = {{"same", same, METH_NOARGS, "Whether all is as it was, by identity."},
                          {nullptr, nullptr, 0, nullptr}};

PyType_Slot kSlots[] = {{Py_tp_new, reinterpret_cast<void*>(make)},
                        {Py_tp_dealloc, reinterpret_cast<void*>(destroy)},
                        {Py_tp_traverse, reinterpret_cast<void*>(traverse)},
                        {Py_tp_clear, reinterpret_cast<void*>(clear)},
                        {Py_tp_methods, kMethods},
                        {0, nullptr}};

PyType_Spec kSpec = {"effkernels._C.Objects", sizeof(PyObjects), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
                     kSlots};

}  // namespace

PyObject* objects_type() { return PyType_FromSpec(&kSpec); }

}  // namespace effkernels::binding
