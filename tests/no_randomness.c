/* Preload library that makes getrandom() fail for the function's codes. Those calls have no flags. Calls of the
   standard library, which seeds its maps, have flags and work. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

ssize_t getrandom(void *buffer, size_t length, unsigned int flags) {
    if (flags == 0 && length > 0) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_getrandom, buffer, length, flags);
}
