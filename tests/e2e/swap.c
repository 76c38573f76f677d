/* Exchanges two names, over and over, until it is killed: swap ONE OTHER. It prints a line once it has begun. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(int count, char **words)
{
	if (count != 3 || renameat2(AT_FDCWD, words[1], AT_FDCWD, words[2], RENAME_EXCHANGE))
		return 1;
	puts("swapping");
	fflush(stdout);
	for (;;) {
		renameat2(AT_FDCWD, words[1], AT_FDCWD, words[2], RENAME_EXCHANGE);
		usleep(50); /* the walk of a path takes longer, and others want the processor as well */
	}
}
