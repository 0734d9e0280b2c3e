/* The commands: opening the connections, and two ways of publishing. Each prints its one line of JSON. */
#pragma once
#include "commands.h"
#include "plan.h"

/* connect concurrency=N [marks=K]
 * Opens and greets the connections that are not open, N at a time (0: all at once). With marks, one is done when K
 * marks have arrived on it. Latency: from connect() to done. */
void run_connect(const struct plan *plan, const struct words *command, double deadline_s);

/* flood window=W messages=M copies=K [acks=1]
 * Closed loop: every group with publishers publishes M messages, its publishers in turn, at most W of them incomplete
 * at a time. A message is complete when K marks have arrived in its group (counted in sum: arrived / K) and, with acks,
 * its acknowledgement. Latency: from publishing to each mark. */
void run_flood(const struct plan *plan, const struct words *command, double deadline_s);

/* rate per_second=R seconds=S copies=K [patience=5]
 * Open loop: R messages per second in all, the groups in turn, and in each its publishers in turn, stamped with the
 * time at which each was due, so that a server that stalls cannot hide it by slowing its publishers down. Ends when all
 * copies have arrived, or so many seconds after the last was due. Latency: from due to each mark. */
void run_rate(const struct plan *plan, const struct words *command);
