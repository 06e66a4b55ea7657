SELECT sum((xpath('//n/text()', query_to_xml(format('SELECT count(*) AS n FROM jobq.job_%s WHERE ticket = id', epoch), false, false, '')))[1]::text::bigint),
	sum((xpath('//n/text()', query_to_xml(format('SELECT count(*) AS n FROM jobq.outcome_%s WHERE ended = ''c''', epoch), false, false, '')))[1]::text::bigint)
FROM jobq.epoch;
