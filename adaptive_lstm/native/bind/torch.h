// What a call needs of torch, as objects that Python passes: nothing here is built against torch.
#pragma once

#include <cstdint>

#include "bind/bind.h"

namespace alstm {

// DLPack's table of functions for reading tensors, found at their type (`__dlpack_c_exchange_api__`, DLPack 1.2).
struct DlpackExchange {
  uint32_t major, minor;
  const DlpackExchange* older;
  void* allocate;
  void* from_object;
  void* to_object;
  int (*look)(void* tensor, nb::dlpack::dltensor* out);  // borrows; not 0: an error is set
};

// Where the floats of a tensor lie: in memory of the CPU, and plain. Distances are in floats.
struct Plain {
  float* data = nullptr;
  int dims = 0;
  int64_t size[3] = {}, stride[3] = {};

  bool dense() const { return size[dims - 1] == 1 || stride[dims - 1] == 1; }
};

nb::object name(const char* text);  // of an attribute

// The sizes and distances of a new tensor, as torch takes them.
struct NewShape {
  nb::object size, stride;
};
NewShape new_shape(std::initializer_list<int64_t> size);

// An attribute that a type defines in C, read past the look-up of its name.
class Attribute {
 public:
  explicit Attribute(nb::object descriptor);
  PyObject* of(PyObject* object) const {  // owned; null: an error is set
    return get_(descriptor_.ptr(), object, reinterpret_cast<PyObject*>(Py_TYPE(object)));
  }

 private:
  nb::object descriptor_;
  descrgetfunc get_;
};

class Torch {
 public:
  // tensor, parameter: the two types that are read.
  // exchange: capsule with a DlpackExchange.
  // empty: (size, stride, dtype) -> a new tensor in memory of the CPU.
  // float32: its dtype.
  // intervenes: calls of which one is true while somebody traces, transforms or converts what runs.
  // grad: () -> whether gradients are recorded.
  // threads: () -> how many threads torch uses.
  // forward_ad: its _current_level is negative unless somebody differentiates in forward mode.
  // version, requires_grad, is_neg: of a tensor, as its type defines them.
  Torch(nb::handle tensor, nb::handle parameter, nb::capsule exchange, nb::object empty, nb::object float32,
        std::vector<nb::object> intervenes, nb::object grad, nb::object threads, nb::object forward_ad,
        nb::object version, nb::object requires_grad, nb::object is_neg);

  bool intervenes() const;
  bool is_tensor(nb::handle object) const;
  bool grad() const { return truth(PyObject_CallNoArgs(grad_.ptr())); }
  int64_t threads() const { return number(PyObject_CallNoArgs(threads_.ptr())); }
  bool requires_grad(PyObject* tensor) const { return truth(requires_grad_.of(tensor)); }
  int64_t version(PyObject* tensor) const { return number(version_.of(tensor)); }

  // The address of a tensor's first element; null if it has none in memory.
  uintptr_t address(PyObject* tensor) const;
  // An address within the object of a tensor in C++; null if it has no dense memory.
  const char* inside(PyObject* tensor) const;
  // False if these are not 1 to 3 dimensions of float32, or the values are not as they lie in memory.
  bool read(PyObject* tensor, Plain& out) const;
  // A new tensor of float32; data: its first element.
  nb::object make(const NewShape& shape, float*& data) const;

 private:
  static bool truth(PyObject* owned);
  static int64_t number(PyObject* owned);
  bool look(PyObject* tensor, nb::dlpack::dltensor& out) const;

  PyObject *tensor_, *parameter_;  // types of torch, which stay
  int (*look_)(void*, nb::dlpack::dltensor*);
  nb::object empty_, float32_;
  std::vector<nb::object> intervenes_;
  nb::object grad_, threads_, forward_ad_, level_;
  Attribute version_, requires_grad_;
  nb::object is_neg_;
};

}  // namespace alstm
