// For instruction sets without matrix tiles.
#pragma once

namespace {

struct Tiles {
  static constexpr bool here = false;
};

}  // namespace
