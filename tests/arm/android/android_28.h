// Included before each source file that is checked for Android 9 (API 28): what glibc has and that libc has not (the
// level that brought it in brackets) is an error where it is used.
#pragma once
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <execinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SHOAL_NOT_IN_ANDROID_28(level) __attribute__((unavailable("Android has it from API " #level " on")))
extern "C" {
int backtrace(void**, int) SHOAL_NOT_IN_ANDROID_28(33);
int close_range(unsigned, unsigned, int) noexcept SHOAL_NOT_IN_ANDROID_28(34);
ssize_t copy_file_range(int, off64_t*, int, off64_t*, size_t, unsigned) SHOAL_NOT_IN_ANDROID_28(34);
int getloadavg(double[], int) noexcept SHOAL_NOT_IN_ANDROID_28(29);
int memfd_create(const char*, unsigned) noexcept SHOAL_NOT_IN_ANDROID_28(30);
int mlock2(const void*, size_t, unsigned) noexcept SHOAL_NOT_IN_ANDROID_28(30);
ssize_t preadv2(int, const iovec*, int, off_t, int) SHOAL_NOT_IN_ANDROID_28(33);
int pthread_cancel(pthread_t) SHOAL_NOT_IN_ANDROID_28(none);
int pthread_getaffinity_np(pthread_t, size_t, cpu_set_t*) noexcept SHOAL_NOT_IN_ANDROID_28(36);
int pthread_setaffinity_np(pthread_t, size_t, const cpu_set_t*) noexcept SHOAL_NOT_IN_ANDROID_28(36);
void* reallocarray(void*, size_t, size_t) noexcept SHOAL_NOT_IN_ANDROID_28(29);
int renameat2(int, const char*, int, const char*, unsigned) noexcept SHOAL_NOT_IN_ANDROID_28(30);
int shm_open(const char*, int, mode_t) SHOAL_NOT_IN_ANDROID_28(none);
int statx(int, const char*, int, unsigned, struct statx*) noexcept SHOAL_NOT_IN_ANDROID_28(30);
}
