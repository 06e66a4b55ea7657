/*
 * unseal.h: opening the sealed payloads of what a call is about to deliver.
 */
#ifndef JOBQ_UNSEAL_H
#define JOBQ_UNSEAL_H

#include "engine/engine.h"

/*
 * Those of a call's JobqDelivery pointers that can be opened; the others, which
 * never will be, are appended to *lost. JQ013 where it is a matter of the
 * server's secret or of the key that the queue names: then all that was taken
 * under this lease is as it was.
 */
extern List *jobq_open_payloads(List *deliveries, int64 lease, List **lost);

/* They are dead. Their claims have been written. */
extern void jobq_end_unopened(const JobqSession *session, const List *lost);

#endif							/* JOBQ_UNSEAL_H */
