"""The public pages, one module a family. A page is a file here and a line in `dripwell.web.app.ROUTES`."""
