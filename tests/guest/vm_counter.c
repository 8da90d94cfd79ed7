/* SPDX-License-Identifier: Apache-2.0

   Runs in the machine of vm_rounds.py as its first process: counts in its memory, in a file and in
   a log, writes to its disk all the time, and answers on its second serial port whether all of it
   agrees. What it compares comes from the disk (O_DIRECT), never from the page cache, which would
   agree with the memory also above a disk of another time.

   A step, twenty a second at most: the file must hold the count; then the count in memory is one
   more, then the log has it, then the file. So a disk of the same instant as a memory with n has n
   or n-1 as the log's last line, and n or n-1 in the file, which is not ahead of the log. A state
   is told between two steps, when all are n.

   Requests are lines "ID COMMAND", answers "ID ...":
     state      NAME=NUMBER...; uptime in ms; physical: where the page of the count is in memory
     freeze     the file system, between two steps; until thaw: "done" or "cannot"
     run WORDS  by the shell; the last line that it says
     off        powers the machine off, the file system clean */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { kPage = 4096, kBlocks = 1024, kWords = kPage / 8, kNoiseFiles = 6, kLine = 1024 };

/* What vm_rounds.py looks for in the memory of the machine. */
static const char kMagic[16] = "ckpt vm counter";

struct counter_page {
  char magic[16];
  volatile uint64_t count;
};

static struct counter_page* page;
static pthread_mutex_t step_lock = PTHREAD_MUTEX_INITIALIZER; /* before blocks_lock */
static pthread_mutex_t blocks_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t complaint_lock = PTHREAD_MUTEX_INITIALIZER; /* the innermost */
static int complaints;
static char complaint[kLine]; /* the first of them */
static int counter_file, log_file, blocks_file;

/* Which version of each block of the file of blocks is on the disk. */
static uint64_t versions[kBlocks];

/* The file system is, by the answering thread, which holds both locks then. */
static int frozen;

static void complain(const char* format, ...) {
  va_list values;
  va_start(values, format);
  pthread_mutex_lock(&complaint_lock);
  if (complaints++ == 0) vsnprintf(complaint, sizeof complaint, format, values);
  pthread_mutex_unlock(&complaint_lock);
  va_end(values);
}

static void must(int good, const char* what) {
  if (good) return;
  perror(what);
  fprintf(stderr, "vm: cannot %s\n", what);
  sleep(1);
  reboot(RB_POWER_OFF);
}

static void* aligned(size_t size) {
  void* memory = aligned_alloc(kPage, size);
  must(memory != NULL, "get memory");
  memset(memory, 0, size);
  return memory;
}

static int open_direct(const char* path) {
  int file = open(path, O_RDWR | O_CREAT | O_DIRECT | O_DSYNC | O_CLOEXEC, 0644);
  must(file >= 0, path);
  return file;
}

/* What the file of the count says, on the disk. */
static uint64_t count_on_disk(char* buffer) {
  if (pread(counter_file, buffer, kPage, 0) != kPage) complain("the counter cannot be read");
  buffer[kPage - 1] = 0;
  return strtoull(buffer, NULL, 10);
}

static void write_count(char* buffer, uint64_t count) {
  memset(buffer, ' ', kPage);
  snprintf(buffer, 32, "%020llu\n", (unsigned long long)count);
  buffer[31] = ' ';
  if (pwrite(counter_file, buffer, kPage, 0) != kPage) complain("the counter cannot be written");
}

static void step(char* buffer) {
  char line[32];
  uint64_t found = count_on_disk(buffer);
  if (found != page->count) {
    complain("in memory %llu, on the disk %llu", (unsigned long long)page->count,
             (unsigned long long)found);
  }
  page->count++;
  int length = snprintf(line, sizeof line, "%llu\n", (unsigned long long)page->count);
  if (write(log_file, line, (size_t)length) != length || fsync(log_file) != 0) {
    complain("the log cannot be written");
  }
  write_count(buffer, page->count);
}

static void* count(void* unused) {
  char* buffer = aligned(kPage);
  for (;;) {
    pthread_mutex_lock(&step_lock);
    step(buffer);
    pthread_mutex_unlock(&step_lock);
    usleep(50000);
  }
  return unused;
}

static uint64_t mixed(uint64_t value) { /* splitmix64 */
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

/* Block `index` in that version: each word follows from both. */
static void fill(uint64_t* words, uint64_t index, uint64_t version) {
  for (uint64_t i = 0; i < kWords; i++) words[i] = mixed(index << 48 ^ version << 16 ^ i);
}

static int is_filled(const uint64_t* words, uint64_t index, uint64_t version) {
  for (uint64_t i = 0; i < kWords; i++) {
    if (words[i] != mixed(index << 48 ^ version << 16 ^ i)) return 0;
  }
  return 1;
}

static void rewrite_block(uint64_t* words, uint64_t index) {
  off_t offset = (off_t)index * kPage;
  if (pread(blocks_file, words, kPage, offset) != kPage ||
      !is_filled(words, index, versions[index])) {
    complain("block %llu is not as it was written", (unsigned long long)index);
  }
  fill(words, index, ++versions[index]);
  if (pwrite(blocks_file, words, kPage, offset) != kPage) complain("a block cannot be written");
}

static void* rewrite_blocks(void* unused) {
  uint64_t* words = aligned(kPage);
  for (uint64_t turn = 1;; turn++) {
    pthread_mutex_lock(&blocks_lock);
    rewrite_block(words, mixed(turn) % kBlocks);
    pthread_mutex_unlock(&blocks_lock);
    usleep(8000);
  }
  return unused;
}

/* Files that come, grow and go, through the page cache and the journal. */
static void* make_noise(void* unused) {
  static uint64_t words[32 * kWords];
  for (uint64_t turn = 1;; turn++) {
    char path[64];
    snprintf(path, sizeof path, "/var/noise/%d", (int)(mixed(turn) % kNoiseFiles));
    if (turn % 5 == 0) unlink(path);
    int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (turn % 3 == 0 ? O_TRUNC : 0), 0644);
    must(file >= 0, "write noise");
    for (size_t i = 0; i < 32 * kWords; i++) words[i] = mixed(turn << 32 ^ i);
    off_t offset = (off_t)(mixed(turn * 7) % 8) * (off_t)sizeof words;
    if (pwrite(file, words, sizeof words, offset) != (ssize_t)sizeof words) {
      complain("noise cannot be written");
    }
    if (turn % 2 == 0) fsync(file);
    close(file);
    usleep(80000);
  }
  return unused;
}

/* Compares every block with the version that memory knows; the number of those that differ. */
static unsigned bad_blocks(void) {
  enum { kAtOnce = 64 };
  static uint64_t* words;
  if (words == NULL) words = aligned(kAtOnce * kPage);
  unsigned bad = 0;
  for (uint64_t first = 0; first < kBlocks; first += kAtOnce) {
    if (pread(blocks_file, words, kAtOnce * kPage, (off_t)first * kPage) != kAtOnce * kPage) {
      return kBlocks;
    }
    for (uint64_t i = 0; i < kAtOnce; i++) {
      if (!is_filled(words + i * kWords, first + i, versions[first + i])) bad++;
    }
  }
  return bad;
}

/* How many lines the log has on the disk, from 1 on without a gap. A line that is not the next one
   ends it, with a complaint. */
static uint64_t log_lines(void) {
  static char* buffer;
  if (buffer == NULL) buffer = aligned(16 * kPage);
  int file = open("/var/log/count", O_RDONLY | O_DIRECT | O_CLOEXEC);
  uint64_t lines = 0, value = 0;
  ssize_t got;
  while ((got = read(file, buffer, 16 * kPage)) > 0) {
    for (ssize_t i = 0; i < got; i++) {
      if (buffer[i] >= '0' && buffer[i] <= '9') {
        value = value * 10 + (uint64_t)(buffer[i] - '0');
        continue;
      }
      if (buffer[i] != '\n' || value != lines + 1) {
        complain("line %llu of the log is %llu", (unsigned long long)lines + 1,
                 (unsigned long long)value);
        close(file);
        return lines;
      }
      lines++;
      value = 0;
    }
  }
  close(file);
  return lines;
}

static unsigned long long physical_address(void) {
  uint64_t entry = 0;
  int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  off_t offset = (off_t)((uintptr_t)page / kPage * sizeof entry);
  if (pread(file, &entry, sizeof entry, offset) != sizeof entry) complain("no pagemap");
  close(file);
  return (entry & ((1ULL << 55) - 1)) * kPage;
}

static void hold(void) {
  pthread_mutex_lock(&step_lock);
  pthread_mutex_lock(&blocks_lock);
}

static void let_go(void) {
  pthread_mutex_unlock(&blocks_lock);
  pthread_mutex_unlock(&step_lock);
}

static void tell_state(char* answer, size_t size) {
  static char* buffer;
  if (buffer == NULL) buffer = aligned(kPage);
  if (!frozen) hold();
  struct timespec up;
  clock_gettime(CLOCK_BOOTTIME, &up);
  unsigned long long file = count_on_disk(buffer), lines = log_lines();
  unsigned bad = bad_blocks();
  snprintf(
      answer, size,
      "memory=%llu file=%llu lines=%llu bad_blocks=%u uptime=%llu physical=%llu complaints=%d %s",
      (unsigned long long)page->count, file, lines, bad,
      (unsigned long long)up.tv_sec * 1000 + (unsigned long long)up.tv_nsec / 1000000,
      physical_address(), complaints, complaint);
  if (!frozen) let_go();
}

static void freeze(char* answer, size_t size) {
  int root = open("/", O_RDONLY | O_CLOEXEC);
  hold();
  frozen = ioctl(root, FIFREEZE, 0) == 0;
  if (!frozen) let_go();
  close(root);
  snprintf(answer, size, "%s", frozen ? "done" : "cannot");
}

static void thaw(char* answer, size_t size) {
  int root = open("/", O_RDONLY | O_CLOEXEC);
  int thawed = frozen && ioctl(root, FITHAW, 0) == 0;
  if (thawed) {
    frozen = 0;
    let_go();
  }
  close(root);
  snprintf(answer, size, "%s", thawed ? "done" : "cannot");
}

static void run(const char* words, char* answer, size_t size) {
  char line[kLine];
  FILE* said = popen(words, "r");
  while (said != NULL && fgets(line, sizeof line, said) != NULL) {
    line[strcspn(line, "\n")] = 0;
    snprintf(answer, size, "%s", line);
  }
  if (said == NULL || pclose(said) != 0) {
    size_t length = strlen(answer);
    snprintf(answer + length, size - length, " (failed)");
  }
}

static void obey(char* request) {
  char answer[2 * kLine] = "";
  char* command = strchr(request, ' ');
  if (command == NULL) return;
  *command++ = 0;
  if (strcmp(command, "state") == 0) {
    tell_state(answer, sizeof answer);
  } else if (strcmp(command, "freeze") == 0) {
    freeze(answer, sizeof answer);
  } else if (strcmp(command, "thaw") == 0) {
    thaw(answer, sizeof answer);
  } else if (strncmp(command, "run ", 4) == 0) {
    run(command + 4, answer, sizeof answer);
  } else if (strcmp(command, "off") == 0) {
    freeze(answer, sizeof answer); /* the file system is clean then */
    reboot(RB_POWER_OFF);
  } else {
    snprintf(answer, sizeof answer, "what is %s?", command);
  }
  printf("%s %s\n", request, answer);
  fflush(stdout);
}

static void prepare(void) {
  page = mmap(NULL, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0);
  must(page != MAP_FAILED, "lock a page");
  memcpy(page->magic, kMagic, sizeof kMagic);
  counter_file = open_direct("/var/counter");
  blocks_file = open_direct("/var/blocks");
  log_file = open("/var/log/count", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
  must(log_file >= 0, "open the log");
  char* buffer = aligned(kPage);
  write_count(buffer, 0);
  for (uint64_t i = 0; i < kBlocks; i++) {
    fill((uint64_t*)buffer, i, 0);
    must(pwrite(blocks_file, buffer, kPage, (off_t)i * kPage) == kPage, "write the blocks");
  }
  free(buffer);
}

static void raw_terminal(void) {
  struct termios settings;
  must(tcgetattr(0, &settings) == 0, "use the serial port");
  cfmakeraw(&settings);
  tcsetattr(0, TCSANOW, &settings);
}

int main(void) {
  pthread_t thread;
  char request[kLine];
  raw_terminal();
  prepare();
  must(pthread_create(&thread, NULL, count, NULL) == 0, "start a thread");
  must(pthread_create(&thread, NULL, rewrite_blocks, NULL) == 0, "start a thread");
  must(pthread_create(&thread, NULL, make_noise, NULL) == 0, "start a thread");
  fprintf(stderr, "vm: counting\n");
  while (fgets(request, sizeof request, stdin) != NULL) {
    request[strcspn(request, "\r\n")] = 0;
    obey(request);
  }
  must(0, "read requests");
  return 1;
}
