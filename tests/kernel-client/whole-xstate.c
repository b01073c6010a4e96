/* Preloaded into User-Mode Linux 6.1. It keeps a process's extended register state in a buffer sized for
   AVX-512. On processors with more (AMX) the kernel takes only the whole state back, so restoring fails and
   the guest dies at its first process. Here the missing rest is filled in from the process itself. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef long (*ptrace_t)(enum __ptrace_request, pid_t, void *, void *);

long ptrace(enum __ptrace_request request, ...)
{
	static ptrace_t real;
	static char whole[64 << 10] __attribute__((aligned(64)));
	va_list arguments;
	va_start(arguments, request);
	pid_t pid = va_arg(arguments, pid_t);
	void *address = va_arg(arguments, void *);
	void *data = va_arg(arguments, void *);
	va_end(arguments);
	if (!real)
		real = (ptrace_t)dlsym(RTLD_NEXT, "ptrace");
	if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE) {
		const struct iovec *given = data;
		struct iovec all = { whole, sizeof whole };
		if (real(PTRACE_GETREGSET, pid, address, &all) == 0 && given->iov_len < all.iov_len) {
			memcpy(whole, given->iov_base, given->iov_len);
			return real(PTRACE_SETREGSET, pid, address, &all);
		}
	}
	return real(request, pid, address, data);
}
