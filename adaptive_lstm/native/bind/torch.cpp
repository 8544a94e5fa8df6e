#include "bind/torch.h"

namespace alstm {

namespace {

nb::object numbers(const std::vector<int64_t>& values) {
  nb::object out = nb::steal(PyTuple_New(Py_ssize_t(values.size())));
  for (size_t i = 0; i < values.size(); i++) PyTuple_SetItem(out.ptr(), Py_ssize_t(i), PyLong_FromLongLong(values[i]));
  return out;
}

}  // namespace

nb::object name(const char* text) {
  PyObject* interned = PyUnicode_InternFromString(text);
  if (!interned) throw nb::python_error();
  return nb::steal(interned);
}

NewShape new_shape(std::initializer_list<int64_t> size) {
  std::vector<int64_t> stride(size.size(), 1);
  for (size_t i = size.size() - 1; i > 0; i--) stride[i - 1] = stride[i] * size.begin()[i];
  return {numbers(size), numbers(stride)};
}

Attribute::Attribute(nb::object descriptor)
    : descriptor_(std::move(descriptor)),
      get_(reinterpret_cast<descrgetfunc>(
          PyType_GetSlot(reinterpret_cast<PyTypeObject*>(descriptor_.type().ptr()), Py_tp_descr_get))) {
  require(get_, "an attribute must be defined by a type");
}

Torch::Torch(nb::handle tensor, nb::handle parameter, nb::capsule exchange, nb::object empty, nb::object float32,
             std::vector<nb::object> intervenes, nb::object grad, nb::object threads, nb::object forward_ad,
             nb::object version, nb::object requires_grad, nb::object is_neg)
    : tensor_(tensor.ptr()),
      parameter_(parameter.ptr()),
      empty_(std::move(empty)),
      float32_(std::move(float32)),
      intervenes_(std::move(intervenes)),
      grad_(std::move(grad)),
      threads_(std::move(threads)),
      forward_ad_(std::move(forward_ad)),
      level_(name("_current_level")),
      version_(std::move(version)),
      requires_grad_(std::move(requires_grad)),
      is_neg_(std::move(is_neg)) {
  const auto* table = static_cast<const DlpackExchange*>(exchange.data("dlpack_exchange_api"));
  require(table && table->major == 1 && table->look, "DLPack's table must be of version 1 and read tensors");
  look_ = table->look;
}

bool Torch::truth(PyObject* owned) {
  if (!owned) throw nb::python_error();
  const int out = owned == Py_True ? 1 : owned == Py_False || owned == Py_None ? 0 : PyObject_IsTrue(owned);
  Py_DECREF(owned);
  if (out < 0) throw nb::python_error();
  return out;
}

int64_t Torch::number(PyObject* owned) {
  if (!owned) throw nb::python_error();
  const int64_t out = PyLong_AsLongLong(owned);
  Py_DECREF(owned);
  if (out == -1 && PyErr_Occurred()) throw nb::python_error();
  return out;
}

bool Torch::intervenes() const {
  for (const nb::object& call : intervenes_)
    if (truth(PyObject_CallNoArgs(call.ptr()))) return true;
  return number(PyObject_GetAttr(forward_ad_.ptr(), level_.ptr())) >= 0;
}

bool Torch::is_tensor(nb::handle object) const {
  return PyObject_IsInstance(object.ptr(), tensor_) == 1;
}

bool Torch::look(PyObject* tensor, nb::dlpack::dltensor& out) const {
  if (!look_(tensor, &out)) return true;
  PyErr_Clear();  // no dense memory: whoever asks goes another way
  return false;
}

uintptr_t Torch::address(PyObject* tensor) const {
  nb::dlpack::dltensor seen{};
  return look(tensor, seen) ? reinterpret_cast<uintptr_t>(seen.data) + seen.byte_offset : 0;
}

const char* Torch::inside(PyObject* tensor) const {
  nb::dlpack::dltensor seen{};
  return look(tensor, seen) ? reinterpret_cast<const char*>(seen.shape) : nullptr;
}

bool Torch::read(PyObject* tensor, Plain& out) const {
  PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(tensor));
  nb::dlpack::dltensor seen{};
  if ((type != tensor_ && type != parameter_) || !look(tensor, seen)) return false;
  if (seen.device.device_type != nb::device::cpu::value || seen.dtype != nb::dtype<float>()) return false;
  if (!seen.data || !seen.strides || seen.ndim < 1 || seen.ndim > 3) return false;  // null data: zeros without memory
  out.data = reinterpret_cast<float*>(static_cast<char*>(seen.data) + seen.byte_offset);
  out.dims = seen.ndim;
  for (int i = 0; i < seen.ndim; i++) out.size[i] = seen.shape[i], out.stride[i] = seen.strides[i];
  return !truth(PyObject_Vectorcall(is_neg_.ptr(), &tensor, 1, nullptr));
}

nb::object Torch::make(const NewShape& shape, float*& data) const {
  PyObject* args[] = {shape.size.ptr(), shape.stride.ptr(), float32_.ptr()};
  PyObject* made = PyObject_Vectorcall(empty_.ptr(), args, 3, nullptr);
  if (!made) throw nb::python_error();
  data = reinterpret_cast<float*>(address(made));
  return nb::steal(made);
}

}  // namespace alstm
