// Scenarios for native/run/thread_pool.h that Python cannot reach; see tests/execution/test_thread_pool.py.
#include "run/thread_pool.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using alstm::run_together;

// Keeps the caller at work until helpers have come, so that they do; false after a long while.
bool come(const std::atomic<int>& helpers, int wanted) {
  for (int i = 0; i < 20000 && helpers < wanted; i++) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return helpers >= wanted;
}

bool helped(int threads) {
  std::atomic<int> helpers{0}, sum{0};
  bool all = false;
  run_together(threads, [&](int who) {
    sum += 1 << who;
    if (who)
      helpers++;
    else
      all = come(helpers, threads - 1);
  });
  return all && sum == (1 << threads) - 1;
}

bool throws_from(int thrower) {
  std::atomic<int> helpers{0};
  try {
    run_together(3, [&](int who) {
      if (who) helpers++;
      if (!who) come(helpers, 2);
      if (who == thrower) throw std::runtime_error("from a thread");
    });
  } catch (const std::runtime_error& error) {
    return !std::strcmp(error.what(), "from a thread") && helped(3);
  }
  return false;
}

bool inside() {  // who is helped already helps itself
  std::atomic<int> helpers{0}, inner{0};
  bool came = false;
  run_together(2, [&](int who) {
    if (who) helpers++;
    if (who) return;
    came = come(helpers, 1);
    run_together(2, [&](int other) { inner += other ? 100 : 1; });
  });
  return came && inner == 1;
}

bool many_callers() {
  std::atomic<int> calls{0};
  std::atomic<bool> twice{false};
  std::vector<std::thread> callers;
  for (int i = 0; i < 8; i++)
    callers.emplace_back([&] {
      for (int j = 0; j < 500; j++) {
        std::atomic<int> seen[3] = {};
        run_together(3, [&](int who) { twice = twice || seen[who]++; });
        calls += seen[0];
      }
    });
  for (std::thread& caller : callers) caller.join();
  return calls == 8 * 500 && !twice;
}

bool fork_once() {
  const pid_t child = fork();
  if (!child) _exit(helped(3) ? 0 : 1);
  int status = -1;
  return waitpid(child, &status, 0) == child && !status;
}

int main(int, char** arguments) {
  const std::string scenario = arguments[1];
  bool good = false;
  if (scenario == "helped") good = helped(2) && helped(5) && helped(3);
  if (scenario == "asleep") {
    good = helped(3);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    good = good && helped(3);
  }
  if (scenario == "throws") good = throws_from(0) && throws_from(1) && throws_from(2);
  if (scenario == "inside") good = inside() && helped(2);
  if (scenario == "callers") good = many_callers() && helped(3);
  if (scenario == "forks") good = helped(3) && fork_once() && helped(3) && fork_once();
  std::puts(good ? "good" : "bad");
  return good ? 0 : 1;
}
