/*
 * pause.h: named points at which test builds can stop a process. In other
 * builds nothing of it exists.
 */
#ifndef JOBQ_PAUSE_H
#define JOBQ_PAUSE_H

#ifdef JOBQ_TEST_BUILD
extern void jobq_pause(const char *point);
#define JOBQ_PAUSE(point) jobq_pause(point)
#else
#define JOBQ_PAUSE(point) ((void) 0)
#endif

#endif							/* JOBQ_PAUSE_H */
