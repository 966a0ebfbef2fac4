/* Licensed under the Apache License, Version 2.0 (the "License"); you may
 * not use this file except in compliance with the License. You may obtain
 * a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
 * WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
 * License for the specific language governing permissions and limitations
 * under the License.
 */

/*
 * Programs of the experiment that no package has.
 *
 * probe on CPUS NODE PAGES PROGRAM [ARGUMENT...]
 *     runs a program on these CPUs (0,2), with its memory on this NUMA node
 *     (- for any)
 * probe chase PAGES SECONDS ROUNDS MIB...
 *     follows pointers through memory of growing sizes, one after the other, in
 *     an order that cannot be foreseen: MIB and ns for each load, a line a round
 * probe stream PAGES SECONDS ROUNDS MIB
 *     a[i] = b[i] + q * c[i] on three arrays, as STREAM's triad: GB/s, a line a
 *     round
 *
 * PAGES is small, thp (transparent huge pages), or a size in KiB. The last two
 * write "ready" once they have all of their memory, and then wait for a line.
 *
 * See set_mempolicy(2), prctl(2), mmap(2) and madvise(2).
 */

#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef MAP_HUGE_SHIFT
#define MAP_HUGE_SHIFT 26
#endif

enum { POLICY_BIND = 2, LINE = 64, BATCH = 4096, MOST_NODES = 1024,
       /* So that arrays don't lie a power of two apart: those on huge pages
        * would share sets of caches. */
       APART = 17 * 8 };

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static void refuse(const char *what)
{
    fprintf(stderr, "probe: %s\n", what);
    exit(2);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Return memory that is all there. */
static void *take(const char *pages, size_t size)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    size_t unit = 2 << 20;
    long kib = strtol(pages, NULL, 10);
    if (kib > 0) {
        unit = (size_t)kib << 10;
        flags |= MAP_HUGETLB | (__builtin_ctzl(unit) << MAP_HUGE_SHIFT);
    }
    /* A transparent huge page has to begin where one can. */
    size_t mapped = (size + unit - 1) / unit * unit + (kib > 0 ? 0 : unit);
    char *memory = mmap(NULL, mapped, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED)
        fail("mmap");
    if (kib <= 0) {
        memory = (char *)(((uintptr_t)memory + unit - 1) / unit * unit);
        int advice = strcmp(pages, "thp") ? MADV_NOHUGEPAGE : MADV_HUGEPAGE;
        /* EINVAL: a kernel without them. */
        if (madvise(memory, size, advice) && errno != EINVAL)
            fail("madvise");
    }
    memset(memory, 1, size);
    return memory;
}

static void wait_for_go(void)
{
    char line[8];
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        exit(1);
}

static uint64_t seed = 88172645463325252u;

static uint64_t draw(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

/* Have each line point to another one, all in one circle (S. Sattolo, 1986). */
static void link_lines(char *memory, size_t lines)
{
    for (size_t i = 0; i < lines; i++)
        *(size_t *)(memory + i * LINE) = i;
    for (size_t i = lines - 1; i > 0; i--) {
        size_t j = draw(i);
        size_t *a = (size_t *)(memory + i * LINE);
        size_t *b = (size_t *)(memory + j * LINE);
        size_t kept = *a;
        *a = *b;
        *b = kept;
    }
    for (size_t i = 0; i < lines; i++) {
        char *line = memory + i * LINE;
        *(char **)line = memory + *(size_t *)line * LINE;
    }
}

static void chase(const char *pages, double seconds, int rounds, char **sizes)
{
    size_t all = 0;
    for (char **size = sizes; *size; size++)
        all += strtoul(*size, NULL, 10) << 20;
    char *memory = take(pages, all);
    /* Before all rounds, which take as long in each arm: so they go on side by
     * side. */
    for (char **size = sizes, *part = memory; *size; size++) {
        size_t bytes = strtoul(*size, NULL, 10) << 20;
        link_lines(part, bytes / LINE);
        part += bytes;
    }
    wait_for_go();
    for (; *sizes; memory += strtoul(*sizes, NULL, 10) << 20, sizes++) {
        char *at = memory;
        for (int round = 0; round < rounds; round++) {
            double began = now(), took;
            uint64_t loads = 0;
            do {
                for (int i = 0; i < BATCH; i++)
                    at = *(char *volatile *)at;
                loads += BATCH;
                took = now() - began;
            } while (took < seconds);
            printf("%s %.4f\n", *sizes, took * 1e9 / (double)loads);
        }
    }
}

static void stream(const char *pages, double seconds, int rounds, size_t mib)
{
    size_t count = (mib << 20) / sizeof(double) / 3;
    double *a = take(pages, (count * 3 + 3 * APART) * sizeof(double));
    double *b = a + count + APART, *c = b + count + 2 * APART;
    wait_for_go();
    for (int round = 0; round < rounds; round++) {
        double began = now(), took;
        uint64_t passes = 0;
        do {
            for (size_t i = 0; i < count; i++)
                a[i] = b[i] + 0.5 * c[i];
            /* What is in memory may have changed, for all the compiler knows. */
            __asm__ volatile("" ::: "memory");
            passes++;
            took = now() - began;
        } while (took < seconds);
        printf("%.4f\n",
               (double)(passes * count * 3 * sizeof(double)) / took / 1e9);
    }
}

static void be_on(char *cpus, const char *node)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (char *cpu = strtok(cpus, ","); cpu; cpu = strtok(NULL, ","))
        CPU_SET(strtoul(cpu, NULL, 10), &set);
    if (sched_setaffinity(0, sizeof set, &set))
        fail("sched_setaffinity");
    if (strcmp(node, "-")) {
        unsigned long mask[MOST_NODES / 8 / sizeof(long)] = {0};
        unsigned long number = strtoul(node, NULL, 10);
        if (number >= MOST_NODES)
            refuse("the number of a NUMA node is too high");
        mask[number / (8 * sizeof(long))] |= 1ul << number % (8 * sizeof(long));
        if (syscall(SYS_set_mempolicy, POLICY_BIND, mask, MOST_NODES))
            fail("set_mempolicy");
    }
}

int main(int count, char **words)
{
    if (count > 5 && !strcmp(words[1], "on")) {
        be_on(words[2], words[3]);
        if (strcmp(words[4], "thp")
            && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0))
            fail("prctl");
        execvp(words[5], words + 5);
        fail(words[5]);
    }
    if (count > 5 && !strcmp(words[1], "chase"))
        chase(words[2], atof(words[3]), atoi(words[4]), words + 5);
    else if (count == 6 && !strcmp(words[1], "stream"))
        stream(words[2], atof(words[3]), atoi(words[4]),
               strtoul(words[5], NULL, 10));
    else
        refuse("see the beginning of its source for what it takes");
    return 0;
}
