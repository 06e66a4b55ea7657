/*
 * scan.h: the plan node that reads deliveries. Private to src/api, but for
 * its installation.
 */
#ifndef JOBQ_SCAN_H
#define JOBQ_SCAN_H

/* To be called once, when the library is loaded. */
extern void jobq_install_scan(void);

#endif							/* JOBQ_SCAN_H */
