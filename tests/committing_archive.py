"""A PACS with storage commitment, as provider."""

import threading
from contextlib import contextmanager

from pydicom import Dataset
from pynetdicom import AE, StoragePresentationContexts, build_role, evt

from focalis.device.commitment import PUSH_MODEL

OBJECT = (PUSH_MODEL, "1.2.840.10008.1.20.1.1")


@contextmanager
def archive(report, on_same=False, status=0x0000):
    """A PACS with storage commitment: its port, the port to report to (a list), and what it was asked.

    `report` makes of each request the event type and the information; None tells nothing.
    """
    asked, where, stored = [], [], []

    def on_action(event):
        asked.append(event.action_information)
        return status, None

    def on_sent(event):
        """Report once the answer to a request is out."""
        if type(event.message).__name__ != "N_ACTION_RSP" or not (where or on_same):
            return
        if (told := report(asked[-1], len(asked))) is None:
            return
        kind, information = told
        if on_same:
            threading.Thread(
                target=event.assoc.send_n_event_report, args=(information, kind, *OBJECT)
            ).start()
            return
        ae = AE("PACS")
        ae.add_requested_context(PUSH_MODEL)
        association = ae.associate(
            "127.0.0.1", where[0], ae_title="FOCALIS", ext_neg=[build_role(PUSH_MODEL, scp_role=True)]
        )
        assert association.accepted_contexts
        answer, _ = association.send_n_event_report(information, kind, *OBJECT)
        asked[-1].answer = answer.Status
        association.release()

    ae = AE("PACS")
    ae.supported_contexts = StoragePresentationContexts
    for uid in ("1.2.840.10008.5.1.4.1.1.66.4", PUSH_MODEL):
        ae.add_supported_context(uid, scu_role=True, scp_role=True)
    handlers = [
        (evt.EVT_C_STORE, lambda event: stored.append(event.request.AffectedSOPInstanceUID) or 0x0000),
        (evt.EVT_N_ACTION, on_action),
        (evt.EVT_DIMSE_SENT, on_sent),
    ]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield server.socket.getsockname()[1], where, asked, stored
    finally:
        server.shutdown()


def kept_by_archive(request, _times):
    """The report that everything is kept."""
    information = Dataset()
    information.TransactionUID = request.TransactionUID
    information.ReferencedSOPSequence = request.ReferencedSOPSequence
    return 1, information
