/* hold DEVICE TAP: opens TAP by DEVICE, which is /dev/net/tun or a macvtap's own, and keeps it open, as QEMU does for its
 * guest. Each line of hexadecimal digits on standard input is a frame that the guest sends. Upon an empty line, all that
 * the guest has been sent since the last one is written to standard output in the same way, and an empty line after it. */
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static unsigned char frame[1518];

static void send_frame(int tap, const char *digits)
{
    size_t length = 0;

    while (length < sizeof frame && sscanf(digits + 2 * length, "%2hhx", &frame[length]) == 1)
        length++;
    if (write(tap, frame, length) < 0)
        perror("hold");
}

static void print_frames(int tap)
{
    ssize_t length;

    while ((length = read(tap, frame, sizeof frame)) > 0) {
        for (ssize_t i = 0; i < length; i++)
            printf("%02x", frame[i]);
        putchar('\n');
    }
    putchar('\n');
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI };
    char line[2 * sizeof frame + 2];
    int tap;

    if (argc != 3)
        return 2;
    strncpy(request.ifr_name, argv[2], IFNAMSIZ - 1);
    tap = open(argv[1], O_RDWR | O_NONBLOCK);
    if (ioctl(tap, TUNSETIFF, &request) < 0) {
        perror(argv[2]);
        return 1;
    }
    while (fgets(line, sizeof line, stdin)) {
        if (line[0] == '\n')
            print_frames(tap);
        else
            send_frame(tap, line);
    }
    return 0;
}
