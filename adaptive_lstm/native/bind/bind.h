// What the parts of the Python bindings share.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>
#include <string>

namespace nb = nanobind;

template <class T, int N>
using Out = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <class T, int N>
using Array = Out<const T, N>;

// Throws ValueError unless the condition holds.
inline void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

// Sizes that come from Python: two of them, rounded up to whole row blocks, add up in 32 bits.
inline bool fits_int(size_t n) { return n >= 1 && n <= size_t(1) << 30; }

// Slots of a type whose objects hold objects of Python, so that the garbage collector sees cycles through them.
// T::each_object(visit): visit(object) for every one; not 0 ends it and is returned.
template <class T>
PyType_Slot* collected() {
  static PyType_Slot slots[] = {
      {Py_tp_traverse, reinterpret_cast<void*>(+[](PyObject* self, visitproc visit, void* arg) {
         Py_VISIT(Py_TYPE(self));
         if (!nb::inst_ready(self)) return 0;
         return nb::inst_ptr<T>(self)->each_object(
             [&](const nb::object& held) { return held ? visit(held.ptr(), arg) : 0; });
       })},
      {0, nullptr}};
  return slots;
}

void bind_weights(nb::module_& m);
void bind_policy(nb::module_& m);
void bind_state(nb::module_& m);
void bind_contents(nb::module_& m);
void bind_counters(nb::module_& m);
void bind_direct_call(nb::module_& m);
