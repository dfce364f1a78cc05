-- What a shared room's events follow is kept with the rest of its graph, by
-- package shared; all other rooms have one end, the PDU that was made last.
DROP TABLE mirror_extremities;

-- What is told of rooms that others invited to, as long as none of ours is in.
CREATE TABLE mirror_previews (
  conv     TEXT PRIMARY KEY,
  stripped BLOB NOT NULL -- JSON list of stripped state events
);
