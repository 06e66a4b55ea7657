/*
 * version.h: which version of the SQL script this library belongs to.
 *
 * Must say what default_version in pg_jobq.control and EXTVERSION in the
 * Makefile say.
 */
#ifndef JOBQ_VERSION_H
#define JOBQ_VERSION_H

#define JOBQ_VERSION	"0.1.0"

#endif							/* JOBQ_VERSION_H */
