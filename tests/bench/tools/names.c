/* names FOLDER COUNT: a blocklist of national size, and queries for it. The same COUNT gives the same files.
 *
 * The shape is that of Indonesia's list: 22 characters on average; 28 % have two labels, 72 % three, a few four.
 * Writes names.txt (one name per line) and, as lines of "NAME TYPE blocked" or "NAME TYPE open":
 *   blocked.txt   names of the list, uniformly distributed
 *   open.txt      5,000 x 7 names that are not listed, all of them before one is repeated
 *   mix.txt       5 % as in blocked.txt, the rest as in open.txt, in random order */
#include "net.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QUERIES = 200000, HOSTS = 5000, SITES = 7, NAME_SIZE = 80 };

static const char *const syllables[] = {
    "ka", "ki", "ku", "ke", "ko", "ta", "ti", "tu", "te", "to", "sa", "si", "su", "se", "so", "na", "ni",
    "nu", "ne", "no", "ma", "mi", "mu", "me", "mo", "ra", "ri", "ru", "re", "ro", "la", "li", "lu",
    "bet", "slot", "poker", "win", "net", "play", "max", "pro", "hub", "tv", "film", "game", "club", "toto",
    "link", "promo",
};
static const char *const tops[] = {
    "com", "com", "com", "com", "com", "com", "com", "com", "com", "com", "net", "net", "net", "org", "org",
    "xyz", "xyz", "info", "top", "site", "online", "co", "me", "tv", "io", "cc", "vip", "club", "biz", "id",
};
static const char *const hosts[] = {
    "www", "m", "cdn", "img", "ads", "api", "app", "login", "vip", "s1", "www2", "wap",
};
static const char *const platforms[] = {"pages.dev", "blogspot.com", "web.app", "netlify.app"};

/* SplitMix64 (Steele, Lea and Flood, 2014): small, and the same on every machine. */
static uint64_t state = 20170714;

static uint64_t mixed(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static size_t below(size_t bound)
{
    return mixed(state += 0x9e3779b97f4a7c15u) % bound;
}

#define ANY(words) ((words)[below(sizeof(words) / sizeof *(words))])

__attribute__((format(printf, 2, 3))) static void add(char *name, const char *format, ...)
{
    size_t length = strlen(name);
    va_list values;
    va_start(values, format);
    vsnprintf(name + length, NAME_SIZE - length, format, values);
    va_end(values);
}

static void add_syllables(char *name, size_t least, size_t most)
{
    for (size_t left = least + below(most - least + 1); left; left--)
        add(name, "%s", ANY(syllables));
}

static void write_name(char *name)
{
    char base[NAME_SIZE] = "";
    size_t shape = below(1000);
    *name = 0;
    if (shape < 200) { /* a site on a shared platform */
        add_syllables(name, 2, 5);
        add(name, ".%s", ANY(platforms));
        return;
    }
    add_syllables(base, 3, 7);
    if (below(100) < 35)
        add(base, "%zu", below(10000));
    if (shape < 512) {
        add(name, "%s.", ANY(hosts));
    } else if (shape < 720) {
        add(name, "%.6s%zu.", base, below(99));
    } else if (shape < 726) {
        add(name, "a.%s.", ANY(hosts));
    }
    add(name, "%s.%s", base, ANY(tops));
}

/* The names: where each starts in one text, and a hash table with open addressing. */
static char *text;
static size_t *starts, *table, table_size, taken, text_length;

static uint64_t hash(const char *name)
{
    uint64_t value = 0;
    while (*name)
        value = mixed(value + (uint8_t)*name++);
    return value;
}

static void take(const char *name, size_t text_room)
{
    size_t slot = hash(name) % table_size, length = strlen(name) + 1;
    for (; table[slot]; slot = (slot + 1) % table_size)
        if (!strcmp(text + starts[table[slot] - 1], name))
            return; /* a duplicate */
    if (text_length + length > text_room) {
        fprintf(stderr, "names: the buffer is too small\n");
        exit(2);
    }
    memcpy(text + text_length, name, length);
    starts[taken++] = text_length;
    table[slot] = taken;
    text_length += length;
}

static FILE *create(const char *folder, const char *file)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *opened = fopen(path, "w");
    if (!opened)
        fail(path);
    return opened;
}

static void finish(FILE *file)
{
    if (ferror(file) | fclose(file))
        fail("write");
}

static void print_blocked(FILE *file)
{
    fprintf(file, "%s %s blocked\n", text + starts[below(taken)], below(3) ? "A" : "AAAA");
}

static void print_open(FILE *file, size_t number)
{
    fprintf(file, "www%zu.passing%zu-site.example A open\n", number % HOSTS, number % SITES);
}

int main(int count, char **arguments)
{
    if (count != 3)
        return 2;
    size_t wanted = (size_t)number_argument("COUNT", arguments[2], 1, 100000000), text_room = wanted * 48 + NAME_SIZE;
    table_size = wanted * 2;
    text = malloc(text_room);
    starts = calloc(wanted, sizeof *starts);
    table = calloc(table_size, sizeof *table);
    if (!text || !starts || !table)
        fail("malloc");
    char name[NAME_SIZE];
    while (taken < wanted) {
        write_name(name);
        take(name, text_room);
    }
    FILE *list = create(arguments[1], "names.txt"), *blocked = create(arguments[1], "blocked.txt");
    FILE *open = create(arguments[1], "open.txt"), *mix = create(arguments[1], "mix.txt");
    for (size_t i = 0; i < wanted; i++)
        fprintf(list, "%s\n", text + starts[i]);
    for (size_t i = 0; i < QUERIES; i++) {
        print_blocked(blocked);
        print_open(open, i);
        if (below(20) == 0)
            print_blocked(mix);
        else
            print_open(mix, below(HOSTS * SITES));
    }
    finish(list), finish(blocked), finish(open), finish(mix);
}
