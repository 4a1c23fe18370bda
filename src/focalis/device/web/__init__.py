"""The device's web page: work list, review of results, models, system, uploads, DICOMweb; see `app.create_app`."""
