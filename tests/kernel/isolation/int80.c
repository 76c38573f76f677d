/* Makes one system call of the 32-bit ABI from a 64-bit program, as hostile code would: `int80 NUMBER ARGUMENT…`.
   Prints what it returns, a negative errno included. */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    long a[4] = {0, 0, 0, 0}, result;
    for (int i = 1; i < argc && i <= 4; i++)
        a[i - 1] = strtol(argv[i], NULL, 0);
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(a[0]), "b"(a[1]), "c"(a[2]), "d"(a[3]) : "memory", "r8", "r9", "r10", "r11");
    printf("%d\n", (int)result);
    return 0;
}
