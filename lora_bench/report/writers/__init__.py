"""Writers of a document: HTML page, markdown, SVG."""
