-- What a shared room's events follow is kept with the rest of its graph, by
-- package shared; all other rooms have one end, the PDU that was made last.
DROP TABLE mirror_extremities;
