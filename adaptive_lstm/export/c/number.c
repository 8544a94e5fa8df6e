/* Functions of numbers that decisions need, in double: libm's, within a unit in the last place. */

#if ALSTM_HOLDS || ALSTM_TIME_EXITS || ALSTM_DEPTH_EXITS

/* The square root, correctly rounded: bit by bit, with one more bit to round by. x is 0 or normal. */
ALSTM_LOCAL double alstm_root(double x) {
  uint64_t bits, root = 0, rest = 0;
  memcpy(&bits, &x, sizeof bits);
  if (!(x > 0)) return 0;
  int32_t exponent = (int32_t)(bits >> 52) - 1023;
  uint64_t digits = (bits & 0xfffffffffffffu) | 0x10000000000000u; /* x = digits * 2^(exponent - 52) */
  if (exponent & 1) digits <<= 1, exponent--;
  digits <<= 10; /* the highest two bits come first */
  for (int i = 0; i < 54; i++) {
    rest = rest << 2 | digits >> 62;
    digits <<= 2;
    root <<= 1;
    if (rest > 2 * root) rest -= 2 * root + 1, root++;
  }
  root = (root >> 1) + (root & 1); /* the last bit is a half or more: a root is never halfway between two numbers */
  bits = ((uint64_t)(exponent / 2 + 1023) << 52) + (root - 0x10000000000000u);
  memcpy(&x, &bits, sizeof bits);
  return x;
}

/* Root mean square of x - y, or of x if y is null, in the order of the Python runtime: eight sums side by side. */
ALSTM_LOCAL double alstm_rms(const float *x, const float *y, uint32_t n) {
  double sum[8] = {0, 0, 0, 0, 0, 0, 0, 0}, all = 0;
  for (uint32_t k = 0; k < n; k++) {
    const double d = (double)x[k] - (y ? (double)y[k] : 0.0);
    sum[k % 8] += d * d;
  }
  for (uint32_t k = 0; k < 8; k++) all += sum[k];
  return alstm_root(all / n);
}

#endif

#if ALSTM_HEADS

/* e^x for x <= 0: x = n ln 2 + r, the Taylor series of e^r for |r| <= ln(2) / 2. */
ALSTM_LOCAL double alstm_exp_double(double x) {
  if (x < -700) return 0;
  const int32_t n = (int32_t)(x * 1.4426950408889634 - 0.5);
  const double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  double p = 1;
  for (int k = 14; k > 0; k--) p = 1 + p * r / k;
  const uint64_t bits = (uint64_t)(n + 1023) << 52;
  double scale;
  memcpy(&scale, &bits, sizeof bits);
  return p * scale;
}

/* ln x for a normal x > 0: x = m 2^n with m around 1, ln m = 2 artanh((m - 1) / (m + 1)). */
ALSTM_LOCAL double alstm_log(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  int32_t n = (int32_t)(bits >> 52) - 1023;
  bits = (bits & 0xfffffffffffffu) | (uint64_t)1023 << 52;
  double m;
  memcpy(&m, &bits, sizeof bits);
  if (m > 1.4142135623730951) m /= 2, n++;
  const double t = (m - 1) / (m + 1), square = t * t;
  double p = 0;
  for (int k = 23; k > 0; k -= 2) p = p * square + 1.0 / k;
  return n * 0.6931471805599453 + 2 * t * p;
}

#endif
