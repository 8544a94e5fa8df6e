// The interpreter of tflite-micro, one timestep an invocation: the states are variable tensors and stay between them.
#include <cmath>
#include <cstring>
#include <new>

#include "rival.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

extern "C" const unsigned char tflite_model[];

namespace {
using Resolver = tflite::MicroMutableOpResolver<1>;
using Interpreter = tflite::MicroInterpreter;

alignas(16) uint8_t arena[96 << 10];
alignas(16) uint8_t resolver_room[sizeof(Resolver)], interpreter_room[sizeof(Interpreter)];
Interpreter *interpreter;
}  // namespace

extern "C" void rival_begin(void) {
  auto *resolver = new (resolver_room) Resolver;
  resolver->AddUnidirectionalSequenceLSTM();
  interpreter = new (interpreter_room) Interpreter(tflite::GetModel(tflite_model), *resolver, arena, sizeof arena);
  if (interpreter->AllocateTensors() != kTfLiteOk) __builtin_trap();
}

extern "C" void rival_in(const float *x) {
  TfLiteTensor *in = interpreter->input(0);
  if (in->type == kTfLiteFloat32) {
    std::memcpy(in->data.f, x, in->bytes);
  } else {
    for (size_t k = 0; k < in->bytes; k++) in->data.int8[k] = static_cast<int8_t>(std::lrint(x[k] / in->params.scale));
  }
}

extern "C" void rival_step(void) {
  if (interpreter->Invoke() != kTfLiteOk) __builtin_trap();
}

extern "C" void rival_out(float *y) {
  const TfLiteTensor *out = interpreter->output(0);
  for (int k = 0; k < out->dims->data[2]; k++)
    y[k] = out->type == kTfLiteFloat32 ? out->data.f[k] : static_cast<float>(out->data.int8[k]) * out->params.scale;
}

extern "C" int rival_state(void) {
  return static_cast<int>(interpreter->arena_used_bytes() + sizeof resolver_room + sizeof interpreter_room);
}
