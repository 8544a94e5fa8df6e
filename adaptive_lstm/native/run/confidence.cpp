#include "run/confidence.h"

#include <algorithm>
#include <cmath>

#include "cpu/dispatch.h"

namespace alstm {

namespace {

// Entropy of a choice of two, in nats.
double entropy_of_two(double p, double q) {
  return -(p * std::log(std::max(p, 1e-30)) + q * std::log(std::max(q, 1e-30)));
}

float of_sigmoid(Measure measure, const float* logits, int n) {
  double least = 1.0;
  for (int k = 0; k < n; k++) {
    const double small = std::exp(-std::fabs(double(logits[k]))), p = 1 / (1 + small), q = small / (1 + small);
    const double sure = measure == Measure::max      ? p
                        : measure == Measure::margin ? p - q
                                                     : 1 - entropy_of_two(p, q) / std::log(2.0);
    least = std::min(least, sure);
  }
  return float(least);
}

float of_softmax(Measure measure, const float* logits, int n) {
  const float top = *std::max_element(logits, logits + n);
  double sum = 0, weighted = 0;
  float second = 0;  // of e^(logit - top), which is 1 for the first one that is largest
  bool first = true;
  for (int k = 0; k < n; k++) {
    const float x = logits[k] - top, e = std::exp(x);
    sum += e;
    weighted += double(e) * x;
    if (x == 0 && first)
      first = false;
    else
      second = std::max(second, e);
  }
  if (measure == Measure::max) return float(1 / sum);
  if (measure == Measure::margin) return float((1 - double(second)) / sum);
  return float(1 - (std::log(sum) - weighted / sum) / std::log(double(n)));
}

}  // namespace

double rms(const float* x, int n) { return std::sqrt(active_kernels().mean_square(x, nullptr, n)); }

double moved(const float* x, const float* y, int n) { return std::sqrt(active_kernels().mean_square(x, y, n)); }

float confidence(const Head& head, const float* logits, int n) {
  return head.sigmoid ? of_sigmoid(head.measure, logits, n) : of_softmax(head.measure, logits, n);
}

}  // namespace alstm
