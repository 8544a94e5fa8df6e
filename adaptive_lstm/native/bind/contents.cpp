// Contents of memory: Python passes addresses of weights that it keeps alive.
#include "pack/contents.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/unique_ptr.h>

#include "bind/bind.h"

using namespace alstm;

namespace {

using Pairs = std::vector<std::pair<uintptr_t, size_t>>;  // address and bytes

std::vector<Region> regions_of(const Pairs& pairs) {
  std::vector<Region> out;
  for (const auto& [address, bytes] : pairs) {
    require(address || !bytes, "an address of memory must not be null");
    out.push_back({reinterpret_cast<const unsigned char*>(address), bytes});
  }
  return out;
}

}  // namespace

void bind_contents(nb::module_& m) {
  nb::class_<Contents>(m, "Contents")
      .def(nb::new_([](const Pairs& regions, bool always) {
             return std::make_unique<Contents>(regions_of(regions), always);
           }),
           nb::arg("regions"), nb::arg("always") = false)
      .def("look", &Contents::look, nb::arg("timesteps"))
      .def_prop_ro("looks", &Contents::looks)
      .def("whole", &Contents::whole)
      .def(
          "moved",
          [](const Contents& self, const Pairs& regions, const std::vector<bool>& counted) {
            return self.moved(regions_of(regions), counted);
          },
          nb::arg("regions"), nb::arg("counted"))
      .def("doubt", &Contents::doubt)
      .def_static("doubt_all", &Contents::doubt_all);
}
