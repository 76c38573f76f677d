/* Opens inotify instances until there are no more, prints how many there were, and keeps them until its input ends. */
#include <stdio.h>
#include <sys/inotify.h>
#include <unistd.h>

int main(void)
{
	int count = 0;
	char byte;

	while (count < 100000 && inotify_init() >= 0)
		count++;
	printf("%d\n", count);
	fflush(stdout);
	return read(0, &byte, 1) < 0;
}
