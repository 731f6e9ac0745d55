"""The picas client, as far as the tests need it. usage: client.py URL DATABASE COMMAND [ARGUMENT...]"""

import sys
import time

from picas.actors import RunActor
from picas.clients import CouchDB
from picas.documents import Task

VIEWS = {
    "todo": "doc.lock == 0 && doc.done == 0",
    "locked": "doc.lock > 0 && doc.done == 0",
    "done": "doc.lock > 0 && doc.done > 0 && parseInt(doc.exit_code) == 0",
    "error": "doc.lock > 0 && doc.done > 0 && parseInt(doc.exit_code) != 0",
}


class Worker(RunActor):
    """Works on every token of the view: its result is its input in capitals."""

    def __init__(self, db, seconds, name):
        super().__init__(db)
        self.seconds = seconds
        self.name = name

    def process_task(self, task):
        print("started", task.id, flush=True)
        time.sleep(self.seconds)
        task.put_attachment(self.name, task.input.upper())
        task["exit_code"] = 0
        task.done()


def main(url, database, command, *arguments):
    """One command."""
    db = CouchDB(url=url, db=database)
    if command == "views":
        for view, condition in VIEWS.items():
            db.add_view(view, 'function(doc) { if (doc.type == "token" && ' + condition + ") emit(doc._id, doc._id); }")
    elif command == "tokens":
        tokens = [Task({"_id": f"token_{n}", "type": "token", "input": f"seed={n}"}) for n in range(int(arguments[0]))]
        assert all(db.save_documents(tokens))
    elif command == "work":
        Worker(db, float(arguments[0]), arguments[1]).run()
    elif command == "results":
        for row in db.view(arguments[0]):
            task = Task(db.get(row.id))
            data = task.get_attachment("result", retrieve_from_database=db)["data"]
            print(task.id, task["exit_code"], task["scrub_count"], data.decode())
    else:
        sys.exit(f"no command {command}")


main(*sys.argv[1:])
