// A library that a server is started with (LD_PRELOAD), so that its disk can be full: while the first byte of the file that
// BARONG_TEST_DISK names is not zero, no file grows, as on a disk without a free block. What lies in blocks that a file has is
// written as ever. Standard output and error go on: the log tells what the test is about.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static const volatile unsigned char *full;

__attribute__((constructor)) static void begin(void) {
	const char *path = getenv("BARONG_TEST_DISK");
	int fd = path ? open(path, O_RDONLY) : -1;
	void *page = fd < 0 ? MAP_FAILED : mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		abort(); // a test that believes in a switch which is not there proves nothing
	full = page;
	close(fd);
}

// room tells whether a file may reach up to end.
static int room(int fd, off_t end) {
	struct stat s;
	if (fd <= STDERR_FILENO || !*full || fstat(fd, &s) || !S_ISREG(s.st_mode) || end <= s.st_size)
		return 1;
	errno = ENOSPC;
	return 0;
}

#define REAL(name) \
	static __typeof__(&name) real; \
	if (!real) \
		real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *from, size_t n) {
	REAL(write);
	off_t at = *full ? (fcntl(fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR)) : 0;
	return room(fd, at + (off_t)n) ? real(fd, from, n) : -1;
}

ssize_t pwrite(int fd, const void *from, size_t n, off_t at) {
	REAL(pwrite);
	return room(fd, at + (off_t)n) ? real(fd, from, n, at) : -1;
}

ssize_t pwritev(int fd, const struct iovec *from, int parts, off_t at) {
	REAL(pwritev);
	off_t end = at;
	for (int i = 0; i < parts; i++)
		end += (off_t)from[i].iov_len;
	return room(fd, end) ? real(fd, from, parts, at) : -1;
}

int fallocate(int fd, int mode, off_t at, off_t n) {
	REAL(fallocate);
	return room(fd, at + n) ? real(fd, mode, at, n) : -1;
}

// It returns its error, and leaves errno alone.
int posix_fallocate(int fd, off_t at, off_t n) {
	REAL(posix_fallocate);
	int before = errno;
	if (room(fd, at + n))
		return real(fd, at, n);
	errno = before;
	return ENOSPC;
}

// The names by which programs of other builds call the same.
ssize_t pwrite64(int, const void *, size_t, off64_t) __attribute__((alias("pwrite")));
ssize_t pwritev64(int, const struct iovec *, int, off64_t) __attribute__((alias("pwritev")));
int fallocate64(int, int, off64_t, off64_t) __attribute__((alias("fallocate")));
int posix_fallocate64(int, off64_t, off64_t) __attribute__((alias("posix_fallocate")));
