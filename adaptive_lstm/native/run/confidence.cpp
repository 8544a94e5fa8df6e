#include "run/confidence.h"

#include <algorithm>
#include <cmath>

namespace alstm {

namespace {

// Entropy of a binary choice, in nats.
double binary_entropy(double p, double q) {
  return -(p * std::log(std::max(p, 1e-30)) + q * std::log(std::max(q, 1e-30)));
}

// Of the more probable outcome p and the other, q.
double binary_confidence(Measure measure, double p, double q) {
  if (measure == Measure::max) return p;
  if (measure == Measure::margin) return p - q;
  return 1 - binary_entropy(p, q) / std::log(2.0);
}

float sigmoid_confidence(Measure measure, const float* logits, int n) {
  double least = 1.0;
  for (int k = 0; k < n; k++) {
    const double small = std::exp(-std::fabs(double(logits[k]))), p = 1 / (1 + small), q = small / (1 + small);
    least = std::min(least, binary_confidence(measure, p, q));
  }
  return float(least);
}

float softmax_confidence(Measure measure, const float* logits, int n) {
  const float top = *std::max_element(logits, logits + n);
  double sum = 0, weighted = 0;
  float second = 0;  // the second largest e^(logit - top); the largest is 1
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

double rms(const Kernels& kernels, const float* x, int n) { return std::sqrt(kernels.mean_square(x, nullptr, n)); }

double rms_change(const Kernels& kernels, const float* x, const float* y, int n) {
  return std::sqrt(kernels.mean_square(x, y, n));
}

float confidence(const Head& head, const float* logits, int n) {
  return head.sigmoid ? sigmoid_confidence(head.measure, logits, n) : softmax_confidence(head.measure, logits, n);
}

}  // namespace alstm
