#include "pack/block_pattern.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace alstm {

namespace {

int difference(const GateStrips& strips, int a, int b) {
  int sum = 0;
  for (int c = 0; c < strips.cols; c++) sum += strips.at(a, c) != strips.at(b, c);
  return sum;
}

}  // namespace

size_t count_blocks(const GateStrips& strips, const std::vector<int32_t>& order) {
  size_t sum = 0;
  for (size_t first = 0; first < order.size(); first += kStripsPerBlock)
    for (int c = 0; c < strips.cols; c++) {
      bool any = false;
      for (int i = 0; i < kStripsPerBlock; i++) any |= strips.at(order[first + i], c);
      sum += any;
    }
  return sum;
}

std::vector<int32_t> group_strips(const GateStrips& strips) {
  std::vector<int32_t> beside(strips.count), left, alike;
  std::iota(beside.begin(), beside.end(), 0);
  const size_t used = size_t(std::accumulate(strips.used.begin(), strips.used.end(), size_t(0)));
  if (used == count_blocks(strips, beside) * kStripsPerBlock) return beside;  // optimal
  left = beside;
  std::vector<std::pair<int, int32_t>> by_difference;
  while (!left.empty()) {  // the first strip left and the three that differ least from it
    by_difference.clear();
    for (size_t i = 1; i < left.size(); i++) by_difference.emplace_back(difference(strips, left[0], left[i]), left[i]);
    std::partial_sort(by_difference.begin(), by_difference.begin() + kStripsPerBlock - 1, by_difference.end());
    alike.push_back(left[0]);
    for (int i = 0; i < kStripsPerBlock - 1; i++) alike.push_back(by_difference[i].second);
    for (auto one = alike.end() - kStripsPerBlock; one != alike.end(); one++)
      left.erase(std::find(left.begin(), left.end(), *one));
  }
  return count_blocks(strips, alike) < count_blocks(strips, beside) ? alike : beside;
}

}  // namespace alstm
