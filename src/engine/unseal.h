/*
 * unseal.h: opening the sealed payloads of what a call is about to deliver.
 */
#ifndef JOBQ_UNSEAL_H
#define JOBQ_UNSEAL_H

#include "engine/engine.h"

/*
 * JobqDelivery pointers of this lease, all of which the call has taken. JQ013:
 * none is delivered.
 */
extern void jobq_open_payloads(List *deliveries, int64 lease);

#endif							/* JOBQ_UNSEAL_H */
