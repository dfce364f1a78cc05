-- Whose devices changed after a point of the feed.
CREATE INDEX mxc_device_changes_feed ON mxc_device_changes (feed);
