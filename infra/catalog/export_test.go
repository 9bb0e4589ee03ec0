package catalog

// UsableOf is Usable for other functions than those of the catalog.
var UsableOf = usable
