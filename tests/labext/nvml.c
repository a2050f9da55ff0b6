/* A driver for tests: the few functions of libnvidia-ml.so.1 that are asked, answered as the
   environment variable FAKE_NVML says: two, mig, failed (no driver), lost (a device that fell off
   the bus), hang. -DOLD leaves out what drivers before 510 lack. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15 };
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned gpu, memory; } rates_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process_t;

static int is(const char *mode) { const char *m = getenv("FAKE_NVML"); return m && !strcmp(m, mode); }
/* a handle is a number: 1 and 2 are devices, 11 and 12 the slices of device 1 */
static long number(void *handle) { return (long)handle; }

int nvmlInitWithFlags(unsigned flags) {
  if (is("hang")) sleep(30);
  return is("failed") ? DRIVER_NOT_LOADED : OK;
}
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) {
  return code == DRIVER_NOT_LOADED ? "Driver Not Loaded" : code == GPU_IS_LOST ? "GPU is lost" : "Other";
}
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
  *handle = (void *)(long)(index + 1);
  return is("lost") && index == 0 ? GPU_IS_LOST : OK;
}
int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
  *current = *pending = is("mig") && number(handle) == 1;
  return is("mig") ? OK : NOT_SUPPORTED;
}
int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) { *count = 7; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **slice) {
  *slice = (void *)(long)(index + 11);
  return index < 2 ? OK : NOT_FOUND;
}
int nvmlDeviceGetUUID(void *handle, char *text, unsigned size) {
  snprintf(text, size, number(handle) > 10 ? "MIG-%ld" : "GPU-%ld", number(handle));
  return OK;
}
int nvmlDeviceGetName(void *handle, char *text, unsigned size) {
  snprintf(text, size, "NVIDIA Test %ld", number(handle));
  return OK;
}
int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
  memory->total = 16ull << 30; memory->used = number(handle) << 30;
  memory->free = memory->total - memory->used;
  return OK;
}
int nvmlDeviceGetUtilizationRates(void *handle, rates_t *rates) {
  rates->gpu = 40 + number(handle); rates->memory = 1;
  return number(handle) > 10 ? NOT_SUPPORTED : OK;
}
#ifndef OLD
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, process_t *found) {
  if (number(handle) != 1) { *count = 0; return OK; }
  if (*count < 2) { *count = 2; return INSUFFICIENT_SIZE; }
  *count = 2;
  found[0].pid = atoi(getenv("FAKE_PID")); found[0].used = 5ull << 20;
  found[1].pid = 1; found[1].used = ~0ull; /* not told */
  return OK;
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, process_t *found) {
  *count = 0;
  return OK;
}
#endif
