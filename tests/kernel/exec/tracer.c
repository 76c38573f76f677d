/*
 * Traces a process and never looks at it again, so that it stays to be reaped by us when it has ended.
 *
 *     tracer PID
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (ptrace(PTRACE_SEIZE, atoi(argv[1]), 0, 0) < 0) {
		perror("PTRACE_SEIZE");
		return 1;
	}
	printf("tracing\n");
	fflush(stdout);
	pause();
	return 0;
}
