// Included before each source file that is checked for Android 7 (API 24), for which Termux compiles: what glibc has
// and that libc has not (the level that brought it in brackets), and what no app may call (seccomp ends the process),
// is an error where it is used. posix_spawn (28) is not here: Termux's package libandroid-spawn has it.
#pragma once
#include <execinfo.h>
#include <glob.h>
#include <grp.h>
#include <iconv.h>
#include <langinfo.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SHOAL_NOT_IN_ANDROID_24(level) __attribute__((unavailable("Android has it from API " #level " on")))
#define SHOAL_ENDS_AN_APP __attribute__((unavailable("Android kills an app for it")))
extern "C" {
void* aligned_alloc(size_t, size_t) noexcept SHOAL_NOT_IN_ANDROID_24(28);
int backtrace(void**, int) SHOAL_NOT_IN_ANDROID_24(33);
int close_range(unsigned, unsigned, int) noexcept SHOAL_NOT_IN_ANDROID_24(34);
ssize_t copy_file_range(int, off64_t*, int, off64_t*, size_t, unsigned) SHOAL_NOT_IN_ANDROID_24(34);
int fexecve(int, char* const[], char* const[]) noexcept SHOAL_NOT_IN_ANDROID_24(28);
int futimes(int, const timeval[2]) noexcept SHOAL_NOT_IN_ANDROID_24(26);
int getdomainname(char*, size_t) noexcept SHOAL_NOT_IN_ANDROID_24(26);
int getentropy(void*, size_t) SHOAL_NOT_IN_ANDROID_24(28);
int getloadavg(double[], int) noexcept SHOAL_NOT_IN_ANDROID_24(29);
int getlogin_r(char*, size_t) SHOAL_NOT_IN_ANDROID_24(28);
ssize_t getrandom(void*, size_t, unsigned) SHOAL_NOT_IN_ANDROID_24(28);
int glob(const char*, int, int (*)(const char*, int), glob_t*) SHOAL_NOT_IN_ANDROID_24(28);
iconv_t iconv_open(const char*, const char*) SHOAL_NOT_IN_ANDROID_24(28);
int lutimes(const char*, const timeval[2]) noexcept SHOAL_NOT_IN_ANDROID_24(26);
int mallopt(int, int) noexcept SHOAL_NOT_IN_ANDROID_24(26);
int memfd_create(const char*, unsigned) noexcept SHOAL_NOT_IN_ANDROID_24(30);
int mlock2(const void*, size_t, unsigned) noexcept SHOAL_NOT_IN_ANDROID_24(30);
char* nl_langinfo(nl_item) noexcept SHOAL_NOT_IN_ANDROID_24(26);
ssize_t preadv2(int, const iovec*, int, off_t, int) SHOAL_NOT_IN_ANDROID_24(33);
int pthread_cancel(pthread_t) SHOAL_NOT_IN_ANDROID_24(none);
int pthread_getaffinity_np(pthread_t, size_t, cpu_set_t*) noexcept SHOAL_NOT_IN_ANDROID_24(36);
int pthread_getname_np(pthread_t, char*, size_t) noexcept SHOAL_NOT_IN_ANDROID_24(26);
int pthread_setaffinity_np(pthread_t, size_t, const cpu_set_t*) noexcept SHOAL_NOT_IN_ANDROID_24(36);
int pthread_setschedprio(pthread_t, int) noexcept SHOAL_NOT_IN_ANDROID_24(28);
ssize_t pwritev2(int, const iovec*, int, off_t, int) SHOAL_NOT_IN_ANDROID_24(33);
void* reallocarray(void*, size_t, size_t) noexcept SHOAL_NOT_IN_ANDROID_24(29);
int renameat2(int, const char*, int, const char*, unsigned) noexcept SHOAL_NOT_IN_ANDROID_24(30);
int shm_open(const char*, int, mode_t) SHOAL_NOT_IN_ANDROID_24(none);
int shmget(key_t, size_t, int) noexcept SHOAL_NOT_IN_ANDROID_24(26);
int statx(int, const char*, int, unsigned, struct statx*) noexcept SHOAL_NOT_IN_ANDROID_24(30);
int sync_file_range(int, off64_t, off64_t, unsigned) SHOAL_NOT_IN_ANDROID_24(26);
int syncfs(int) noexcept SHOAL_NOT_IN_ANDROID_24(28);
int timespec_get(timespec*, int) noexcept SHOAL_NOT_IN_ANDROID_24(29);

int acct(const char*) noexcept SHOAL_ENDS_AN_APP;
int adjtimex(timex*) noexcept SHOAL_ENDS_AN_APP;
int chroot(const char*) noexcept SHOAL_ENDS_AN_APP;
int clock_adjtime(clockid_t, timex*) noexcept SHOAL_ENDS_AN_APP;
int clock_settime(clockid_t, const timespec*) noexcept SHOAL_ENDS_AN_APP;
int klogctl(int, char*, int) noexcept SHOAL_ENDS_AN_APP;
int mount(const char*, const char*, const char*, unsigned long, const void*) noexcept SHOAL_ENDS_AN_APP;
int ntp_adjtime(timex*) noexcept SHOAL_ENDS_AN_APP;
int setgid(gid_t) noexcept SHOAL_ENDS_AN_APP;
int setgroups(size_t, const gid_t*) noexcept SHOAL_ENDS_AN_APP;
int sethostname(const char*, size_t) noexcept SHOAL_ENDS_AN_APP;
int setregid(gid_t, gid_t) noexcept SHOAL_ENDS_AN_APP;
int setresgid(gid_t, gid_t, gid_t) noexcept SHOAL_ENDS_AN_APP;
int setreuid(uid_t, uid_t) noexcept SHOAL_ENDS_AN_APP;
int settimeofday(const timeval*, const struct timezone*) noexcept SHOAL_ENDS_AN_APP;
int setuid(uid_t) noexcept SHOAL_ENDS_AN_APP;
int swapon(const char*, int) noexcept SHOAL_ENDS_AN_APP;
int umount2(const char*, int) noexcept SHOAL_ENDS_AN_APP;
}
